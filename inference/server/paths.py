"""Which paths there are, and by which methods: looked at before key and body of a request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.server.bodies import answer_early
from inference.server.errors import ApiError
from inference.server.hosts import refuse

_METHODS = ("GET", "POST", "DELETE")


class PathGate:
    """Middleware that refuses what leads nowhere, and takes HEAD wherever there is GET."""

    def __init__(
        self, app: ASGIApp, routes: Callable[[], Sequence[BaseRoute]], page: Collection[str]
    ) -> None:
        """Takes what gives the routes of the application, and the paths of its page."""
        self._app = app
        self._routes = routes
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "websocket":
            if self._leads_somewhere(scope):
                await self._app(scope, receive, send)
            else:
                await refuse(_nothing_at(scope), scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        methods = [name for name in _METHODS if self._leads_somewhere({**scope, "method": name})]
        is_get = scope["method"] in ("GET", "HEAD") and "GET" in methods
        if is_get or scope["method"] in methods:
            inner = {**scope, "method": "GET"} if is_get else scope
            await self._app(inner, receive, send)
            if "route" in inner:  # is counted under its name
                scope["route"] = inner["route"]
        elif methods:
            allowed = [*methods, "HEAD"] if "GET" in methods else methods
            error = ApiError(
                405,
                f"{scope['path'][:100]} does not take the method {scope['method']}.",
                headers={"Allow": ", ".join(allowed)},
            )
            await answer_early(error, scope, receive, send)
        else:
            await answer_early(_nothing_at(scope), scope, receive, send)

    def _leads_somewhere(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"] in self._page:
            return scope["method"] == "GET"
        return any(
            route.matches(scope)[0] is Match.FULL
            for route in self._routes()
            if not isinstance(route, Mount)  # the page, which takes every path
        )


def _nothing_at(scope: Scope) -> ApiError:
    return ApiError(404, f"There is nothing at {scope['path'][:100]}.")


__all__ = ["PathGate"]
