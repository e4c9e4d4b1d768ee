"""A running API for a test case, on a port the kernel chose."""

import json
import threading
import unittest
from http.client import HTTPConnection

from api.app import App
from api.server import make_server


class ApiCase(unittest.TestCase):
    def setUp(self):
        self.server = serve(self, make_server(App(), 0, page_port="1"))

    def call(self, method, path, body=None, **headers):
        """Status and decoded JSON."""
        status, _, content = exchange(self.server, method, path, body, headers)
        return status, json.loads(content)

    def add(self, title, **fields):
        status, todo = self.call("POST", "/api/todos", {"title": title, **fields})
        self.assertEqual(201, status, todo)
        return todo


def serve(case, server):
    """Serve in a thread until the test is over."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    case.addCleanup(thread.join)
    case.addCleanup(server.server_close)
    case.addCleanup(server.shutdown)
    return server


def exchange(server, method, path, body=None, headers=None):
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()
