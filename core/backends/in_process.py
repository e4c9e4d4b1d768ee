"""The feature tools inside a process that talks to claude, without a server of their own."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from claude_agent_sdk import McpSdkServerConfig, SdkMcpTool, create_sdk_mcp_server
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent

from autocoder.core.mcp_server import Caller, feature_server
from autocoder.core.mcp_servers import FEATURES
from autocoder.core.probe import local_kernel
from autocoder.core.store import ProjectStore


async def sdk_feature_server(
    store: ProjectStore, caller: Caller, project_dir: Path
) -> McpSdkServerConfig:
    """The same tools as `autocoder mcp`, for `ClaudeAgentOptions.mcp_servers`."""
    server = feature_server(store, caller, local_kernel(), project_dir)

    def calling(name: str) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
        async def call(arguments: dict[str, Any]) -> dict[str, Any]:
            try:
                result = await server.call_tool(name, arguments)
            except ToolError as error:
                return _answer(str(error), is_error=True)
            assert isinstance(result, CallToolResult)
            text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
            return _answer(text, is_error=bool(result.is_error))

        return call

    return create_sdk_mcp_server(
        FEATURES,
        tools=[
            SdkMcpTool(tool.name, tool.description or "", tool.input_schema, calling(tool.name))
            for tool in await server.list_tools()
        ],
    )


def _answer(text: str, *, is_error: bool) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "is_error": is_error}
