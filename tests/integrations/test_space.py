"""The Space's folder: its header as the Hub reads it, and a command that `melody` understands."""

import json
import re
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "integrations" / "space"


@pytest.fixture
def command() -> list[str]:
    (line,) = re.findall(r"^CMD (\[.*\])$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    return json.loads(line)


def test_the_header_names_the_port_that_is_served(command):
    header = yaml.safe_load((FOLDER / "README.md").read_text("utf-8").split("---\n")[1])
    assert header["sdk"] == "docker"
    assert str(header["app_port"]) == command[command.index("--port") + 1]
    assert f"EXPOSE {header['app_port']}" in (FOLDER / "Dockerfile").read_text()


def test_the_command_is_one_that_melody_understands_and_the_token_is_no_part_of_it(command):
    pytest.importorskip("melody_diffusers.serving")
    from melody_diffusers.cli.parser import parser

    args = parser().parse_args(command[1:])
    assert command[:2] == ["melody", "serve"] and args.host == "0.0.0.0"
    assert not re.search(r"^(ENV|ARG).*TOKEN", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)


def test_it_refuses_to_serve_others_without_the_token(command, monkeypatch, capsys):
    pytest.importorskip("melody_diffusers.serving")
    from melody_diffusers.cli import main

    monkeypatch.delenv("MELODY_TOKEN", raising=False)
    assert main(command[1:]) != 0
    assert "MELODY_TOKEN" in capsys.readouterr().err
