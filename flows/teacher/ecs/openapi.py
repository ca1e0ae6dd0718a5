"""The OpenAPI document of our ECS transcoding API."""

from pydantic import BaseModel

from lectern import __version__


def _error(description: str) -> dict[str, object]:
    schema = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _rendition(description: str, **more: object) -> dict[str, object]:
    properties = {"rendition": {"type": "string"}, "status": {"type": "string"}, **more}
    schema = {"type": "object", "properties": properties, "required": ["rendition", "status"]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_ONE_ATTEMPT = """\
What is being made is joined: the answer names the run under way. What was made, and still lies where it was uploaded,
is not made again. Without `at`, a request begins the first attempt only, so one that is sent again, by its sender or
by whoever recorded it, begins nothing. After an attempt that failed, or if the file is gone, another one begins for
a request whose `at` is later than that; such a request is taken for five minutes."""


def described(asked: type[BaseModel]) -> dict[str, object]:
    """The OpenAPI document; *asked* is the model of a request's body."""
    # OpenAPI keeps the models that others refer to under components, not under $defs as a JSON Schema does.
    schema = asked.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = schema.pop("$defs")
    return {
        "openapi": "3.1.0",
        "info": {"title": "lectern: ECS transcoding", "version": __version__},
        "components": {"schemas": schemas},
        "paths": {
            "/transcode": {
                "post": {
                    "summary": "Have a rendition made on an ECS host; a second request joins the one under way.",
                    "description": _ONE_ATTEMPT,
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": schema}},
                    },
                    "responses": {
                        "200": _rendition("It was made, and nothing is begun.", url={"type": ["string", "null"]}),
                        "202": _rendition("It is being made.", id={"type": "string", "format": "uuid"}),
                        "401": _error("The signature is wrong, or the request is of another time."),
                        "404": _error("No booking names the record."),
                        "409": _error(
                            "Its last attempt failed, or its file is gone, and at is missing or before that; "
                            "or no attempt is left today, or there is nothing to transcode from."
                        ),
                        "408": _error("The body did not come in time."),
                        "413": _error("The body is too long."),
                        "422": _error("The body is not as it should be."),
                        "429": _error("Too many requests; Retry-After says how long to wait."),
                        "503": _error("No ECS host is set up, or Prefect is away."),
                    },
                }
            },
            "/transcode/{id}": {
                "get": {
                    "summary": "How far a transcoding is.",
                    "parameters": [
                        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
                        {"name": "sign", "in": "query", "required": True, "schema": {"type": "string"}},
                    ],
                    "responses": {
                        "200": {"description": "Its state, and that of its renditions."},
                        "401": _error("The signature is wrong."),
                        "404": _error("There is no such transcoding."),
                        "429": _error("Too many requests."),
                        "503": _error("Prefect is away."),
                    },
                }
            },
        },
    }
