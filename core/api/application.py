"""The API put together. What changes the fleet is a wish: answered 202, fulfilled by the loop."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from autocoder.core.api import problems
from autocoder.core.api.agent_routes import add_agent_routes
from autocoder.core.api.engine_routes import add_engine_routes, add_status_routes
from autocoder.core.api.feature_routes import add_feature_routes
from autocoder.core.api.page import add_page
from autocoder.core.api.port_routes import add_port_routes
from autocoder.core.api.problems import Refusal
from autocoder.core.api.service import Service
from autocoder.core.errors import AutocoderError


def build_application(service: Service, version: str) -> FastAPI:
    """The API over `service`. Guards belong around it, one for each way in."""
    app = FastAPI(
        title="autocoder",
        version=version,
        description="Agents, features and ports of one project. What ends or starts an agent is "
        "a wish: 202 says that it was heard; the list of agents and the events say what came.",
        # Their pages load scripts from other hosts; ours is in `page`.
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(Refusal, problems.of_refusal)
    app.add_exception_handler(RequestValidationError, problems.of_invalid_request)
    app.add_exception_handler(HTTPException, problems.of_http_exception)
    app.add_exception_handler(AutocoderError, problems.of_autocoder_error)
    for add_routes in (
        add_status_routes,
        add_port_routes,
        add_agent_routes,
        add_feature_routes,
        add_engine_routes,
        add_page,
    ):
        add_routes(app, service)
    return app
