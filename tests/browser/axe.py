"""What axe-core finds wrong with a page for people who hear it, use keys, or see other colours."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

_RUN = """async roots => {
    const include = roots.flatMap(root => [...document.querySelectorAll(root)]);
    if (!include.length) throw new Error(`there is none of ${roots} in this page`);
    return (await axe.run({include}, {resultTypes: ['violations']})).violations; }"""


def serious_violations(page: Page, *roots: str) -> list[str]:
    """Return what axe-core calls serious or critical inside `roots`: rule, element and what is wrong with it."""
    if not page.evaluate("() => Boolean(window.axe)"):
        page.add_script_tag(path=str(files("axe_playwright_python").joinpath("axe.min.js")))
    found: list[dict[str, Any]] = page.evaluate(_RUN, list(roots))
    return [
        f"{rule['id']}: {node['target']}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
