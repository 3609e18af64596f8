"""Apps served from a notebook."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from kicourse.errors import UserError
from kicourse.serving import serving


def test_an_app_is_served_while_the_context_lasts() -> None:
    app = FastAPI()
    app.get("/")(lambda: {"pump": "HP-2041"})
    with serving(app) as url:
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(url).json() == {"pump": "HP-2041"}
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_an_app_that_does_not_start_is_an_error() -> None:
    @asynccontextmanager
    async def broken(app: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    with pytest.raises(UserError, match="does not start: RuntimeError: no database"), serving(FastAPI(lifespan=broken)):
        pass
