"""`autocoder doctor`: what is wrong on this host and in this project, and the remedy."""

import os
from pathlib import Path

import typer

from autocoder.core.cli.options import JsonOption, ProjectOption
from autocoder.core.cli.output import guarded, print_json, print_table


def doctor(project_dir: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Look at git, terminal, ports, disk, kernel and backends; exit 1 where one cannot do.

    Changes nothing. Every line says ok, warn or fail, and what to do about it.

    \b
    Examples:
      autocoder doctor
      autocoder doctor --json | jq '.[] | select(.status == "fail") | .remedy'
    """
    with guarded(as_json=as_json):
        # SQL and the process libraries cost most of a second: not for --help.
        from autocoder.core.composition import existing_folder
        from autocoder.core.doctor import Finding, Status, examine
        from autocoder.core.errors import UsageError
        from autocoder.core.settings import Settings, load_settings

        folder = existing_folder(project_dir)
        try:
            settings = load_settings(folder, environ=os.environ)
            first = Finding("settings", Status.OK, f"{len(settings.origins)} differ from default")
        except UsageError as error:
            settings = Settings()
            first = Finding("settings", Status.FAIL, error.message, error.hint)
        findings = (first, *examine(folder, settings))
        if as_json:
            print_json([finding.as_dict() for finding in findings])
        else:
            rows = [(f.status.value, f.check, f.detail, f.remedy) for f in findings]
            print_table(("", "CHECK", "FOUND", "REMEDY"), rows)
    if any(finding.status is Status.FAIL for finding in findings):
        raise typer.Exit(1)
