"""Calls over plain HTTP that leave out what has a default.

Gradio wants every value of an endpoint in its place. Photo and words are enough here; a call that lacks one
of them gets a sentence that says which.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["EndpointParameters", "completed", "parameters_of"]

EndpointParameters = Mapping[str, tuple[inspect.Parameter, ...]]
"""Parameters of each endpoint, in their order."""

_CALL = re.compile(r"/gradio_api/(?:call|run)/([^/]+)/?")


def parameters_of(
    endpoints: Mapping[str, Callable[..., Any]], defaults: Mapping[str, Any]
) -> EndpointParameters:
    """The parameters of functions by the endpoints' names.

    Args:
        endpoints: the functions.
        defaults: values that this server uses in the place of the functions' own.
    """
    return {
        name: tuple(
            parameter.replace(default=defaults.get(parameter.name, parameter.default))
            if parameter.default is not inspect.Parameter.empty
            else parameter
            for parameter in inspect.signature(function).parameters.values()
        )
        for name, function in endpoints.items()
    }


def completed(path: str, body: bytes, endpoints: EndpointParameters) -> tuple[bytes, str]:
    """A call's body with the defaults of what it leaves out, and a sentence if it leaves out too much.

    Args:
        path: of the request; any other than a call passes as it is.
        body: JSON with a list `data`; anything else passes as it is.
        endpoints: from `parameters_of`.
    """
    called = _CALL.fullmatch(path)
    parameters = endpoints.get(called.group(1)) if called else None
    if parameters is None:
        return body, ""
    try:
        content = json.loads(body)
        values = content["data"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return body, ""
    if not isinstance(values, list) or len(values) >= len(parameters):
        return body, ""
    left_out = parameters[len(values) :]
    missing = [p.name for p in left_out if p.default is inspect.Parameter.empty]
    if missing:
        optional = ", ".join(p.name for p in parameters if p.default is not inspect.Parameter.empty)
        return body, (
            f"The call has {len(values)} values and lacks {' and '.join(missing)}; "
            f"these may be left out: {optional or 'none'}."
        )
    content["data"] = [*values, *(p.default for p in left_out)]
    return json.dumps(content).encode(), ""
