"""The Jupyter Server extension that serves the course map at /kicourse."""

from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado import web

from kicourse.checks.record import workspace_root
from kicourse.syllabus import course
from kicourse.workspace import page, progress
from kicourse.workspace.folder import Workspace


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "kicourse.workspace.course_map"}]


def _load_jupyter_server_extension(server: Any) -> None:
    root = workspace_root(Path(server.root_dir))
    if root is None:
        server.log.warning("kicourse: %s is not a workspace, so there is no course map.", server.root_dir)
        return
    base = server.web_app.settings["base_url"]
    handlers = [
        (url_path_join(base, "kicourse"), MapHandler, {"root": root}),
        (url_path_join(base, "kicourse", "progress"), ProgressHandler, {"root": root}),
    ]
    server.web_app.add_handlers(".*$", handlers)


class _WorkspaceHandler(JupyterHandler):
    """Answers only who has the server's token, like every page of Jupyter."""

    # Watching the map is no work: it must not keep a server alive that ends when nobody works.
    _track_activity = False

    def initialize(self, root: Path) -> None:
        self.root = root


class MapHandler(_WorkspaceHandler):
    """The page, and the form on it that changes the language."""

    @web.authenticated
    def get(self) -> None:
        """Show the map; `?path=` names the core path or a role."""
        links = page.Links(self.base_url, self.xsrf_token.decode())
        self.set_header("Cache-Control", "no-store")
        self.finish(page.render(Workspace.open(self.root), links, self.get_argument("path", "")))

    @web.authenticated
    def post(self) -> None:
        """Bring the workspace into another language."""
        language = self.get_body_argument("language")
        if language not in course().languages:
            raise web.HTTPError(400, f"There is no language {language!r}.")
        Workspace.open_or_make(self.root, language)
        self.redirect(url_path_join(self.base_url, "kicourse"))


class ProgressHandler(_WorkspaceHandler):
    """What the page asks every few seconds: has anything changed?"""

    @web.authenticated
    def get(self) -> None:
        """Send {"revision": ...}, a text that changes with the progress."""
        self.finish({"revision": progress.revision(self.root)})
