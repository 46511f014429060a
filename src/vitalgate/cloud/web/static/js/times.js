// Times in the reader's own zone; the page is right (in UTC) without this, and nearer with it.
import { age } from "./words.js";

for (const element of document.querySelectorAll("time[datetime]")) {
  const at = new Date(element.dateTime);
  if (Number.isNaN(at.getTime())) continue;
  element.title = element.textContent;
  const day = at.toLocaleDateString("sv");
  element.textContent = `${day} ${at.toLocaleTimeString([], { hour12: false })}`;
  if (element.dataset.age !== undefined) element.textContent += ` (${age((Date.now() - at.getTime()) / 1000)} ago)`;
}
