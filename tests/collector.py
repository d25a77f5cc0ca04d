"""A collector of OpenTelemetry's spans, as one would run beside a service: OTLP over HTTP, on this machine alone."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Collector:
    """What has come, and where it goes to."""

    def __init__(self):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.bodies = bodies = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._message = ExportTraceServiceRequest
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def spans(self, trace_id):
        """(attributes of what sent it, span) of the spans of a trace; its id is hexadecimal."""
        found = []
        for body in list(self.bodies):
            for resource in self._message.FromString(body).resource_spans:
                sender = {each.key: each.value.string_value for each in resource.resource.attributes}
                found += [
                    (sender, span)
                    for scope in resource.scope_spans
                    for span in scope.spans
                    if span.trace_id.hex() == trace_id
                ]
        return found

    def close(self):
        self._server.shutdown()
        self._server.server_close()
