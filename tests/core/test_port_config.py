"""A process asks for its own ports, and never gets a wrong one silently."""

import pytest

from autocoder.core import port_config
from autocoder.core.errors import UsageError


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_PORT", "WEB_PORT", "UI_PORT", "UI_ALLOWED_ORIGINS"):
        monkeypatch.delenv(f"AUTOCODER_{name}", raising=False)


def test_without_variables_the_defaults_hold() -> None:
    assert (port_config.get_api_port(), port_config.get_web_port()) == (5000, 5173)
    assert port_config.get_ui_port() == 8888
    assert port_config.get_api_base_url() == "http://localhost:5000"
    assert port_config.get_web_base_url() == "http://localhost:5173"


def test_the_agents_variables_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCODER_API_PORT", "5001")
    monkeypatch.setenv("AUTOCODER_WEB_PORT", "5174")

    assert port_config.get_api_port() == 5001
    assert port_config.get_vite_port() == port_config.get_web_port() == 5174


@pytest.mark.parametrize("value", ["80", "65536", "x", "5000.0", "-5000", "٥٠٠٠"])
def test_a_bad_port_is_an_error_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("AUTOCODER_API_PORT", value)

    with pytest.raises(UsageError, match="AUTOCODER_API_PORT"):
        port_config.get_api_port()


def test_origins_default_to_loopback_and_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "http://localhost:8888" in port_config.get_ui_cors_origins()

    monkeypatch.setenv("AUTOCODER_UI_ALLOWED_ORIGINS", "https://a.example, https://b.example")
    assert port_config.get_ui_cors_origins() == ["https://a.example", "https://b.example"]
