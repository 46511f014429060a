// A sign-in link keeps its token behind the '#', which browsers send to nobody; from there it goes into the form.
const form = document.getElementById("link-form");
const token = decodeURIComponent(window.location.hash.slice(1));
window.history.replaceState(null, "", window.location.pathname); // out of the address bar and the history
if (token) {
  form.elements.token.value = token;
  document.getElementById("link-button").disabled = false;
} else {
  document.getElementById("link-empty").hidden = false;
}
