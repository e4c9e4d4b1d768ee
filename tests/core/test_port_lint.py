import subprocess
from pathlib import Path

import pytest

from autocoder.core.errors import GitError, UsageError
from autocoder.core.port_lint import lint_diff, lint_text, lint_tree

HARD_CODED = [
    ("src/server.js", "app.listen(3000, () => {});", 3000),
    ("src/server.ts", "server.listen({ port: 4000 })", 4000),
    ("src/api.ts", "const API = 'http://localhost:5001/api';", 5001),
    ("src/socket.ts", 'new WebSocket("ws://127.0.0.1:5001/live")', 5001),
    ("src/auth.ts", '  redirectURI: "http://localhost:3000/api/auth/callback",', 3000),
    ("src/headers.py", '    "origin": "localhost:8501",', 8501),
    ("src/index.js", "const PORT = 5001;", 5001),
    ("src/settings.js", "module.exports = { port: 5001 }", 5001),
    ("app.py", "app.run(host='0.0.0.0', port=5000)", 5000),
    ("app.py", "uvicorn.run(app, port=8000)", 8000),
    ("app.py", 'HTTPServer(("", 8000), Handler).serve_forever()', 8000),
    ("app.py", 'sock.bind(("127.0.0.1", 5005))', 5005),
    ("app.py", "API_PORT = 5001", 5001),
    ("main.go", 'http.ListenAndServe(":8080", nil)', 8080),
    ("main.go", 'net.Listen("tcp", "localhost:8081")', 8081),
    ("main.rs", 'TcpListener::bind("127.0.0.1:7878").unwrap();', 7878),
    ("main.rs", "let addr = SocketAddr::from(([127, 0, 0, 1], 3030));", 3030),
    ("vite.config.ts", "  server: { port: 5173, strictPort: true },", 5173),
    ("playwright.config.ts", "    baseURL: 'http://localhost:3000',", 3000),
    ("tests/e2e/todo.spec.ts", "await page.goto('http://localhost:5173/');", 5173),
    ("cypress/e2e/a.cy.js", "cy.visit('http://localhost:3000')", 3000),
    ("tests/test_api.py", 'requests.get("http://127.0.0.1:5000/todos")', 5000),
    ("package.json", '    "dev": "vite --port 5173",', 5173),
    ("package.json", '    "start": "PORT=3000 node server.js",', 3000),
    ("package.json", '    "dev": "next dev -p 3001"', 3001),
    ("Makefile", "\tpython -m http.server 8000", 8000),
    ("Makefile", "\tphp -S localhost:8001", 8001),
    ("run.sh", "python manage.py runserver 0.0.0.0:8000", 8000),
    ("run.sh", "export PORT=5000", 5000),
    (".env", "VITE_API_URL=http://localhost:5000", 5000),
    (".env.development", "PORT=4000", 4000),
    ("docker-compose.yml", '      - "3000:3000"', 3000),
    ("compose.yaml", "      - 127.0.0.1:8080:80", 8080),
    ("deploy.sh", "docker run -d -p 8080:80 app", 8080),
    ("Dockerfile", 'CMD ["uvicorn", "app:app", "--port", "8000"]', 8000),
    ("Dockerfile", "ENV PORT=3000", 3000),
    ("Procfile", "web: gunicorn app:app -b 0.0.0.0:8000", 8000),
    ("application.properties", "server.port=8080", 8080),
    ("settings.toml", "port = 9000", 9000),
]
HARMLESS = [
    ("server.js", "const port = process.env.PORT || 3000;"),
    ("server.js", "app.listen(port)"),
    ("server.js", "// app.listen(3000)"),
    ("server.js", "/* http://localhost:3000 */"),
    ("server.js", "/**\n * see http://localhost:3000 for more\n */"),
    ("server.ts", "interface Options { port: number }"),
    ("server.ts", "const DEFAULT_PORT = 3000"),
    ("server.ts", "const MAX_PORT = 65535"),
    ("server.ts", "const url = 'https://example.org:8443/'"),
    ("server.ts", "const database = 'postgres://localhost:5432/app'"),
    ("server.ts", "setTimeout(listen, 3000)"),
    ("server.ts", "const report = 3000; const support = 4000"),
    ("server.ts", "fetch(`http://localhost:${port}/`)"),
    ("app.py", 'port = int(os.environ.get("PORT", 5000))'),
    ("app.py", "def run(port: int = 8000) -> None: ..."),
    ("app.py", "def run(\n    host='',\n    port=8000,\n): ..."),
    ("app.py", 'parser.add_argument("--port", type=int, default=8000)'),
    ("app.py", '"""Open http://localhost:5000 in a browser."""'),
    ("app.py", "# http://localhost:5000"),
    ("app.py", "redis.Redis(host='localhost', port=6379)"),
    ("app.py", "retry(timeout=5000)"),
    ("tests/test_url.py", "assert parse('http://localhost:8080/x').port == 8080"),
    ("run.sh", "npm run dev -- --port $AUTOCODER_WEB_PORT"),
    ("run.sh", "python -m http.server ${PORT:-8000}"),
    ("docker-compose.yml", '      - "${API_PORT:-3000}:3000"'),
    ("docker-compose.yml", '      - "3000"'),
    ("Dockerfile", "EXPOSE 3000"),
    ("deploy/service.yaml", "    targetPort: 8080"),
    ("README.md", "Open http://localhost:3000"),
    ("docs/guide.js", "app.listen(3000)"),
    ("node_modules/x/index.js", "app.listen(3000)"),
    ("dist/bundle.js", "app.listen(3000)"),
    ("lib/jquery.min.js", "app.listen(3000)"),
    ("package-lock.json", '"port": 3000'),
    ("data.bin", "app.listen(3000)"),
    ("cli.py", 'prompt("Enter a URL (e.g. http://localhost:5000)")'),
    ("cli.py", 'option("--uri", help="like http://127.0.0.1:8080")'),
    ("cli.py", 'print("Open http://localhost:5000 to see your work")'),
    ("cli.py", '"2. Start it: `server --port 5000`\\n"'),
    ("cli.py", """"`set_tracking_uri('http://localhost:5000')`\""""),
    ("login.html", "<pre>\nhttp://localhost:8888/?token=c8de56fa :: /home/you\n</pre>"),
    ("ollama.py", 'DEFAULT_BASE = "http://localhost:11434/v1"'),
    ("mqtt.py", "port = 1883"),
]


@pytest.mark.parametrize(("path", "line", "port"), HARD_CODED)
def test_a_hard_coded_port_is_found(path: str, line: str, port: int) -> None:
    (found,) = lint_text(path, f"\n{line}\n")
    assert (found.path, found.line, found.port) == (path, 2, port)


@pytest.mark.parametrize(("path", "text"), HARMLESS)
def test_what_only_looks_like_a_hard_coded_port_is_not_found(path: str, text: str) -> None:
    assert list(lint_text(path, text)) == []


def test_a_line_that_names_a_port_twice_is_told_once() -> None:
    line = '"start": "PORT=3000 vite --port 3000"'
    assert len(list(lint_text("package.json", line))) == 1


def test_generated_and_binary_text_is_passed_over() -> None:
    assert not list(lint_text("a.js", "app.listen(3000);" + "x" * 3000))
    assert not list(lint_text("a.js", "\0app.listen(3000);"))


def test_a_tree_is_searched_without_following_links(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    for folder in (outside, tree / "src", tree / "node_modules"):
        folder.mkdir(parents=True)
        (folder / "server.js").write_text("app.listen(3000)")
    (tree / "link").symlink_to(outside)
    (tree / "link.js").symlink_to(outside / "server.js")
    assert [found.path for found in lint_tree(tree)] == ["src/server.js"]


def test_a_single_file_can_be_searched(tmp_path: Path) -> None:
    (tmp_path / "server.js").write_text("app.listen(3000)")
    assert [found.port for found in lint_tree(tmp_path / "server.js")] == [3000]


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        list(lint_tree(tmp_path / "nowhere"))


def test_text_that_is_no_utf8_does_not_stop_the_search(tmp_path: Path) -> None:
    (tmp_path / "server.js").write_bytes(b"// \xff\xfe\napp.listen(3000)")
    assert [found.line for found in lint_tree(tmp_path)] == [2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "check out"
    folder.mkdir()
    (folder / "old.js").write_text("app.listen(3000)\n")
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "first"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_a_diff_tells_only_of_added_lines(checkout: Path) -> None:
    (checkout / "old.js").write_text("app.listen(3000)\nother.listen(4000)\n")
    (checkout / "new ü.js").write_text("app.listen(5000)\n")
    found = [(port.path, port.line, port.port) for port in lint_diff(checkout, "main")]
    assert found == [("new ü.js", 1, 5000), ("old.js", 2, 4000)]


def test_a_diff_of_a_folder_tells_of_that_folder(checkout: Path) -> None:
    (checkout / "web").mkdir()
    (checkout / "web" / "server.js").write_text("app.listen(5000)\n")
    (checkout / "old.js").write_text("app.listen(9000)\n")
    assert [found.path for found in lint_diff(checkout / "web", "main")] == ["server.js"]


def test_a_hostile_file_name_is_no_option_of_git(checkout: Path) -> None:
    (checkout / "--output=x.js").write_text("app.listen(5000)\n")
    assert [found.path for found in lint_diff(checkout, "main")] == ["--output=x.js"]
    assert not (checkout / "x.js").exists()


@pytest.mark.parametrize("base", ["nowhere", "--help", ""])
def test_a_base_that_does_not_exist_is_said(base: str, checkout: Path) -> None:
    with pytest.raises(GitError):
        list(lint_diff(checkout, base))
