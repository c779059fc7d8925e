"""Starting: without torch, with a demonstration, and what is said when something is missing."""

from __future__ import annotations

import re
import subprocess
import sys

from accord.feedback.store.tables import Campaign
from accord.feedback.studio.demo import add_demo
from accord.feedback.studio.serve import admin_link
from feedback.studio.visitors import Visitor


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_the_studio_and_its_command_load_no_torch():
    code = "import accord.cli.studio, accord.feedback.studio.serve, sys; "
    done = run(code + "assert not sys.modules.keys() & {'torch', 'transformers', 'datasets'}")
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_an_error_that_names_the_extra():
    code = (
        "import sys; sys.modules['nh3'] = None; from accord.cli.app import main; "
        "sys.exit(main(['feedback', 'studio', '--port', '0']))"
    )
    done = run(code)
    assert done.returncode == 2
    assert "pip install 'accord-align[studio]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_are_refused_in_one_line():
    code = "import sys; from accord.cli.app import main; sys.exit(main(['feedback', 'studio', '--host', '0.0.0.0']))"
    done = run(code)
    assert done.returncode == 2
    assert "behind_proxy" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_demonstration_has_every_kind_of_task_and_is_made_once(place):
    project = add_demo(place.store, chats=True)
    assert add_demo(place.store, chats=True) == project
    visitor = Visitor(place.app)
    link = place.store.run(admin_link, base="", now=place.now)
    home = visitor.post(link, {"name": "ada", "password": "a good long password"})
    campaigns = re.findall(r"/c/([0-9a-f-]+)/task", home.text)
    kinds = {place.store.read(lambda s, one=one: s.get(Campaign, one).task_type) for one in campaigns}
    assert kinds == {"rank", "pairwise", "winrate", "attributes", "labels", "demonstrate", "chat", "redteam"}
    csrf = re.search(r'data-csrf="(\w+)"', home.text)[1]
    visitor.post(f"/c/{campaigns[0]}/consent", {"agree": "yes"}, csrf=csrf)
    guideline = re.search(r'name="guideline" value="([^"]+)"', visitor.get(f"/c/{campaigns[0]}/guidelines").text)[1]
    visitor.post(f"/c/{campaigns[0]}/guidelines", {"guideline": guideline}, csrf=csrf)
    pages = [visitor.get(f"/c/{one}/task") for one in campaigns]
    assert [page.status_code for page in pages] == [200] * 8
    assert sum("data-assignment" in page.text for page in pages) == 6
