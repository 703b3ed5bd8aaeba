"""The endpoints as tools for language models, asked for by Gradio's own variable."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ovseg_demo.page.layout import build, served
from ovseg_demo.page.server.model_pool import ModelPool

pytestmark = pytest.mark.slow

TOOLS = {"segment", "compare", "proposals", "models"}


@pytest.fixture
def url(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("mcp", reason="needs gradio[mcp]")
    monkeypatch.setenv("GRADIO_MCP_SERVER", "True")
    page = build(pool.settings, pool)
    yield served(page, pool.settings, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    page.close(verbose=False)


async def _ask(url: str) -> tuple[dict[str, Any], Any]:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async with (
        streamablehttp_client(f"{url}gradio_api/mcp/") as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        name = next(name for name in tools if name.endswith("models"))
        return tools, await session.call_tool(name, {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_they_are_listed_with_what_they_take(url: str) -> None:
    tools, answer = asyncio.run(_ask(url))
    named = {name.split("_")[-1]: tool for name, tool in tools.items()}
    assert set(named) == TOOLS
    assert {"photo", "words"} <= set(named["segment"].inputSchema["properties"])
    assert "reported as not found" in named["segment"].description
    assert "ovseg-mini" in str(answer.content)


def test_without_being_asked_for_there_are_none(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_MCP_SERVER", raising=False)
    page = build(pool.settings, pool)
    served(page, pool.settings, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        assert not page.mcp_server
    finally:
        page.close(verbose=False)
