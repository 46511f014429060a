"""`vitalgate coap get|put|post|delete|fetch|patch|ipatch|observe URI`, `vitalgate coap server`,
`vitalgate coap proxy` and `vitalgate coap etsi`."""

import asyncio
import base64
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable
from json import dumps
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from vitalgate.cli.coapetsi import etsi
from vitalgate.cli.coapprogress import ProgressLine
from vitalgate.cli.coapproxy import proxy
from vitalgate.cli.output import FAILED, JsonFlag, document, fail, note, wrong
from vitalgate.coap.formats import MEDIA_TYPES, ContentFormat, media_type
from vitalgate.coap.message import Code, Message, code_text
from vitalgate.coap.options import OPTIONS, Format, Option, OptionRow, content_format, decode_uint, encode_uint
from vitalgate.coap.uri import DEFAULT_PORTS, UriError
from vitalgate.net.coap import CoapClient, CoapServer, How, RequestError, is_loopback
from vitalgate.net.groups import GroupRequestError, is_group
from vitalgate.net.plugtest import Plugtest
from vitalgate.net.udp import AddressError

app = typer.Typer(help="A CoAP client and a server to try things on.", no_args_is_help=True, add_completion=False)

MAX_DATA = 1 << 24
"""Longest payload read from a file or standard input."""

GROUP_WAIT = 10.0
"""Seconds for which answers of a group are awaited, where ``--timeout`` allows it: two DEFAULT_LEISURE."""

UriArgument = Annotated[str, typer.Argument(help="coap://HOST[:PORT]/PATH[?QUERY]", show_default=False)]
Data = Annotated[str, typer.Option("--data", "-d", help="The payload: text, @FILE, or - for standard input.")]
FormatOption = Annotated[
    str, typer.Option("--format", "-f", help="Content-Format of the payload: a number, a name like cbor, a media type.")
]
Accept = Annotated[str, typer.Option("--accept", "-a", help="Content-Format wanted.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="Another option, NUMBER-OR-NAME=VALUE; 0x... gives its bytes. Repeatable."),
]
Non = Annotated[bool, typer.Option("--non", "-N", help="Send a Non-confirmable message, once.")]
Timeout = Annotated[float, typer.Option("--timeout", "-t", min=0.01, help="Give up after so many seconds.")]
Interface = Annotated[
    str, typer.Option("--interface", "-i", help="For a group: the interface to ask it by, a name or an IPv4 address.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show codes and options on standard error.")]

_NAMES: dict[str, int] = {row.name.lower(): row.number for row in OPTIONS.values()}
_FORMATS: dict[str, int] = {row.name.lower().replace("_", "-"): row.value for row in ContentFormat} | {
    name.partition(";")[0]: number for number, name in MEDIA_TYPES.items() if number != ContentFormat.COSE_ENCRYPT0
}


def format_number(text: str) -> int:
    """The Content-Format that a person means. Exit 2 where there is none."""
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    number = _FORMATS.get(text.lower().partition(";")[0])
    if number is None:
        wrong(f"{text!r} is no Content-Format: give a number or one of {', '.join(sorted(_FORMATS))}")
    return number


def option_pair(text: str) -> tuple[int, bytes]:
    """An option (number, value) that a person means. Exit 2 where there is none."""
    name, _, value = text.partition("=")
    number = int(name) if name.isascii() and name.isdigit() else _NAMES.get(name.lower(), -1)
    if not 0 < number < 65536:
        wrong(f"--option {text!r}: {name!r} is no option; give a number or a name like ETag")
    row = OPTIONS.get(number)
    if value.startswith("0x"):
        try:
            return number, bytes.fromhex(value[2:])
        except ValueError:
            wrong(f"--option {text!r}: {value!r} is not hexadecimal")
    if row is not None and row.format is Format.UINT:
        if not (value.isascii() and value.isdigit()):
            wrong(f"--option {text!r}: {row.name} is a number")
        return number, encode_uint(int(value))
    return number, value.encode()


def printable(text: bytes) -> str:
    """What a peer wrote, without what would steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text.decode(errors="replace"))


def option_value(row: OptionRow | None, value: bytes) -> str | int:
    """An option's value for people."""
    if row is None or row.format is Format.OPAQUE:
        return "0x" + value.hex()
    if row.format is Format.STRING:
        return printable(value)
    number = decode_uint(value)
    if row.number in (Option.BLOCK1, Option.BLOCK2):
        return f"{number >> 4}/{number >> 3 & 1}/{16 << (number & 7)}"  # as RFC 7959 section 3 writes them
    return number


def described(response: Message) -> dict[str, Any]:
    """A response as the JSON document shows it."""
    options = []
    for number, value in response.options:
        row = OPTIONS.get(number)
        options.append({"number": int(number), "name": row.name if row else "", "value": option_value(row, value)})
    format_ = content_format(response)
    found: dict[str, Any] = {
        "code": code_text(response.code),
        "name": _name(response.code),
        "content_format": None if format_ is None else media_type(format_),
        "options": options,
    }
    try:
        found["payload"] = response.payload.decode()
    except UnicodeDecodeError:
        found["payload_base64"] = base64.b64encode(response.payload).decode()
    return found


def _name(code: int) -> str:
    try:
        return Code(code).name.replace("_", " ").capitalize()
    except ValueError:
        return ""


def show_options(what: str, message: Message) -> None:
    """Code and options on standard error."""
    note(f"{what} {code_text(message.code)} {_name(message.code)}".rstrip())
    for number, value in message.options:
        row = OPTIONS.get(number)
        shown = option_value(row, value)
        if number in (Option.CONTENT_FORMAT, Option.ACCEPT):
            shown = media_type(decode_uint(value))
        note(f"  {row.name if row else f'option {number}'}: {shown}")


def payload_of(text: str) -> bytes:
    """What ``--data`` says. Exit 2 where a file cannot be read."""
    try:
        if text == "-":
            data = sys.stdin.buffer.read(MAX_DATA + 1)
        elif text.startswith("@"):
            with Path(text[1:]).open("rb") as file:
                data = file.read(MAX_DATA + 1)
        else:
            return text.encode()
    except OSError as error:
        wrong(f"--data {text}: {error.strerror}")
    if len(data) > MAX_DATA:
        wrong(f"--data {text}: more than {MAX_DATA} bytes")
    return data


def write_payload(payload: bytes) -> None:
    """The payload on standard output as it is; on a terminal a line ends."""
    sys.stdout.buffer.write(payload)
    if payload and sys.stdout.isatty() and not payload.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a client's ``work``; what goes wrong is one line and exit status 1, a wrong URI 2."""

    async def main() -> None:
        await work()

    try:
        asyncio.run(main())
    except UriError as error:
        wrong(str(error))
    except TimeoutError:
        fail("no answer in time")
    except (RequestError, GroupRequestError, AddressError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(FAILED) from None


def how_of(format_: str, accept: str, options: list[str] | None, non: bool) -> How:
    """The options of the command line as the client takes them."""
    how: How = {"confirmable": not non, "options": [option_pair(each) for each in options or ()]}
    if format_:
        how["content_format"] = format_number(format_)
    if accept:
        how["accept"] = format_number(accept)
    return how


def _ask(
    code: Code, uri: str, payload: bytes, how: How, timeout: float, verbose: bool, json: bool, interface: str
) -> None:
    failed = False
    line = how["progress"] = ProgressLine(verbose=verbose)
    if _names_group(uri):
        _ask_group(code, uri, payload, how, timeout, verbose, json, interface)
        return

    async def work() -> None:
        nonlocal failed
        try:
            async with CoapClient() as client, asyncio.timeout(timeout):
                response = await client.request(code, uri, payload, **how)
        finally:
            line.clear()
        failed = response.code >> 5 not in (0, 2)  # 0.00: none was wanted (No-Response)
        if verbose:
            show_options("<-", response)
        if json:
            document({"uri": uri, "method": code.name} | described(response))
        elif failed:
            detail = printable(response.payload)
            note(f"error: {code_text(response.code)} {_name(response.code)}" + (f": {detail}" if detail else ""))
        else:
            write_payload(response.payload)

    run(work)
    if failed:
        raise typer.Exit(FAILED)


def _names_group(uri: str) -> bool:
    try:
        return is_group(urlsplit(uri).hostname or "")
    except ValueError:
        return False  # the client says what is wrong with it


def _ask_group(
    code: Code, uri: str, payload: bytes, how: How, timeout: float, verbose: bool, json: bool, interface: str
) -> None:
    # Each answer as it comes; nobody knows how many there will be.
    count = 0

    async def work() -> None:
        nonlocal count
        async with CoapClient() as client:
            wait = min(timeout, GROUP_WAIT)
            async for answer in client.ask_group(code, uri, payload, wait=wait, interface=interface, **how):
                count += 1
                if verbose:
                    show_options(f"<- {answer.uri}", answer.response)
                if json:
                    document({"uri": answer.uri, "method": code.name} | described(answer.response))
                    continue
                if not verbose:
                    note(answer.uri)
                write_payload(answer.response.payload)
                if answer.response.payload and not sys.stdout.isatty():
                    sys.stdout.write("\n")
                    sys.stdout.flush()

    run(work)
    if not count:
        fail("nobody in the group answered")


def _plain(code: Code, words: str) -> Callable[..., None]:
    def command(
        uri: UriArgument,
        accept: Accept = "",
        option: Options = None,
        non: Non = False,
        timeout: Timeout = 100.0,
        verbose: Verbose = False,
        json: JsonFlag = False,
        interface: Interface = "",
    ) -> None:
        _ask(code, uri, b"", how_of("", accept, option, non), timeout, verbose, json, interface)

    command.__doc__ = words
    return command


def _with_payload(code: Code, words: str) -> Callable[..., None]:
    def command(
        uri: UriArgument,
        data: Data = "",
        format: FormatOption = "",
        accept: Accept = "",
        option: Options = None,
        non: Non = False,
        timeout: Timeout = 100.0,
        verbose: Verbose = False,
        json: JsonFlag = False,
        interface: Interface = "",
    ) -> None:
        _ask(code, uri, payload_of(data), how_of(format, accept, option, non), timeout, verbose, json, interface)

    command.__doc__ = words
    return command


for _code, _make, _words in (
    (Code.GET, _plain, "Read a resource."),
    (Code.PUT, _with_payload, "Replace or create a resource."),
    (Code.POST, _with_payload, "Hand a resource something to process."),
    (Code.DELETE, _plain, "Delete a resource."),
    (Code.FETCH, _with_payload, "Read what the payload asks for (RFC 8132)."),
    (Code.PATCH, _with_payload, "Change a part of a resource (RFC 8132)."),
    (Code.IPATCH, _with_payload, "Change a part; doing it twice does no harm (RFC 8132)."),
):
    app.command(_code.name.lower())(_make(_code, _words))


@app.command("observe")
def observe(
    uri: UriArgument,
    data: Data = "",
    accept: Accept = "",
    option: Options = None,
    non: Non = False,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="Stop after so many states; 0: do not.")] = 0,
    seconds: Annotated[float, typer.Option("--seconds", "-s", min=0.0, help="Stop after this time; 0: do not.")] = 0.0,
    verbose: Verbose = False,
    json: JsonFlag = False,
) -> None:
    """Observe a resource (RFC 7641): its state now and each later one, until Ctrl-C. With --data it asks by FETCH. With
    --json each state is one line."""
    how = how_of("", accept, option, non)
    line = how["progress"] = ProgressLine(verbose=verbose)
    payload = payload_of(data)
    failed = False

    def show(state: Message) -> None:
        line.clear()
        if verbose:
            show_options("<-", state)
        if json:
            sys.stdout.write(dumps({"uri": uri} | described(state), ensure_ascii=False) + "\n")
            sys.stdout.flush()
        elif state.code >> 5 == 2:
            write_payload(state.payload + (b"" if sys.stdout.isatty() else b"\n"))
        else:
            note(f"error: {code_text(state.code)} {_name(state.code)}")

    async def work() -> None:
        nonlocal failed
        left = count
        async with CoapClient() as client:
            states = client.observe(uri, payload, code=Code.FETCH if data else Code.GET, **how)
            async with contextlib.aclosing(states):
                async for state in states:
                    show(state)
                    failed = state.code >> 5 != 2
                    left -= 1
                    if left == 0:
                        return
                if not failed:
                    note("the server does not let this be observed any longer")

    async def limited() -> None:
        if seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(work(), seconds)
        else:
            await work()

    run(limited)
    if failed:
        raise typer.Exit(FAILED)


app.command("etsi")(etsi)
app.command("proxy")(proxy)


def _group(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        return parts.hostname or "", DEFAULT_PORTS["coap"] if parts.port is None else parts.port
    except ValueError as error:
        wrong(f"--join {text!r}: {error}")


@app.command("server")
def server(
    bind: Annotated[str, typer.Option(help="HOST:PORT to listen on; port 0 takes a free one.")] = "127.0.0.1:5683",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Answer addresses at length only once they have shown by Echo that they receive it (RFC 9175).",
        ),
    ] = True,
    interval: Annotated[float, typer.Option(min=0.01, help="Seconds between changes of what can be observed.")] = 5.0,
    separate: Annotated[float, typer.Option(min=0.0, help="Seconds that /separate takes to answer.")] = 2.0,
    join: Annotated[
        str, typer.Option(help="GROUP[:PORT] whose requests are answered too, for example 224.0.1.187 or [ff02::fd].")
    ] = "",
    interface: Annotated[str, typer.Option("--interface", "-i", help="The interface on which to join it.")] = "",
) -> None:
    """Serve the resources of the ETSI plugtests, and POST /benchmark?rlen=N. A server to try things on."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if not host or not (port.isascii() and port.isdigit()):
        wrong(f"--bind {bind!r}: write HOST:PORT, for example 127.0.0.1:{DEFAULT_PORTS['coap']}")

    async def work() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with CoapServer(verify_addresses=verify) as serving:
            plugtest = Plugtest(serving, separate_after=separate, interval=interval)
            address, bound = serving.bind(host, int(port))
            shown = f"[{address}]" if ":" in address else address
            note(f"serving coap://{shown}:{bound}/")
            if join:
                group, group_port = _group(join)
                serving.join(group, group_port, interface)
                note(f"answering the group {join}")
            if not verify and not is_loopback((address, bound)):
                note("anyone can have this server send long answers to addresses that are not theirs (--no-verify)")
            changing = asyncio.create_task(plugtest.run())
            await stop.wait()
            changing.cancel()

    run(work)
