"""`GET /`: a page for people who open the address in a browser."""

import re
from html import escape
from importlib.resources import files

from dynemo.http.exchange import Exchange
from dynemo.http.health import Health, ModelHealth

#: Instances that the page names; it counts the others.
_MOST_NAMED = 10
_HOST = re.compile(r"[A-Za-z0-9.\-_]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")
#: A line of the example for a shell.
_KEY_HEADER = "\n  -H 'Authorization: Bearer KEY' \\"
#: The page is self-contained: it loads nothing, and talks only to this server.
_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class Page:
    def __init__(self, health: Health) -> None:
        self._health = health
        self._text = ""

    async def __call__(self, exchange: Exchange) -> None:
        if not self._text:
            self._text = files(__package__).joinpath("page.html").read_text("utf-8")
        report = self._health.report(exchange.client)
        base = f"{exchange.scope.get('scheme', 'http')}://{_host(exchange)}"
        page = fill(
            self._text,
            status=escape(report.reason or "ready"),
            status_class=report.status,
            base=escape(base),
            model=escape(report.models[0].id if report.models else "MODEL"),
            needs_key="yes" if exchange.client.lacks_key else "",
            key_header=_KEY_HEADER if exchange.client.lacks_key else "",
            key="KEY" if exchange.client.lacks_key else "none",
            rows="\n".join(_row(model) for model in report.models),
            options="".join(f"<option>{escape(model.id)}</option>" for model in report.models),
        )
        await exchange.reply(
            page.encode(),
            content_type="text/html; charset=utf-8",
            headers=[
                (b"content-security-policy", _POLICY),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ],
        )


def fill(page: str, **values: str) -> str:
    """Replaces each `{{name}}` with HTML in one pass, so that a value is never replaced again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], page)


def _host(exchange: Exchange) -> str:
    host = exchange.header(b"host")
    return host if _HOST.fullmatch(host) else "localhost"


def _row(model: ModelHealth) -> str:
    engine = "".join(
        f'<div title="{escape(i.id)}">{escape(i.engine)} {escape(i.version)} '
        f"on {escape(i.device)}, {i.running} of {i.slots} slots in use</div>"
        for i in model.instances[:_MOST_NAMED]
    )
    if len(model.instances) > _MOST_NAMED:
        engine += f"<div>and {len(model.instances) - _MOST_NAMED} more</div>"
    return (
        f"<tr><td><code>{escape(model.id)}</code></td>"
        f"<td>{engine or escape(model.reason or 'no instances')}</td>"
        f"<td>{model.context_length:,} tokens</td></tr>"
    )
