"""Widgets in a real kernel, which is sent the messages that JupyterLab sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.manager import KernelManager

from helpers.kernels import kernel_options
from helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client.blocking.client import BlockingKernelClient

WORKBENCH = "import logistream as ls; w = ls.Workbench(rate=100)"
LIVE = "import logistream as ls; w = ls.live(lambda: str(w.shown), every=0.1); w.start()"


@pytest.fixture
def client() -> Iterator[BlockingKernelClient]:
    """Give a client of a new kernel."""
    with kernel_options() as options:
        manager = KernelManager(kernel_name="python3", **options)
        manager.start_kernel()
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=240)
            yield client
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def answer_to(client: BlockingKernelClient, kind: str, **content: Any) -> dict[str, Any]:
    """Return the answer to a request on the control channel."""
    request = client.session.msg(kind, content)
    client.control_channel.send(request)
    while True:
        reply: dict[str, Any] = client.get_control_msg(timeout=90)
        if reply["parent_header"].get("msg_id") == request["header"]["msg_id"]:
            return dict(reply["content"])


def comm_message(client: BlockingKernelClient, comm: str, subshell: str | None, **content: Any) -> None:
    """Send a message of a page to a widget."""
    data = {"method": "custom", "content": content}
    message = client.session.msg("comm_msg", {"comm_id": comm, "data": data})
    message["header"]["subshell_id"] = subshell
    client.shell_channel.send(message)


def idle_after(client: BlockingKernelClient, request: dict[str, Any]) -> bool:
    """Return whether the next message on iopub is the end of a request."""
    heard = client.get_iopub_msg(timeout=90)
    same = heard["parent_header"].get("msg_id") == request["header"]["msg_id"]
    return bool(same and heard["content"].get("execution_state") == "idle")


def value(client: BlockingKernelClient, expression: str) -> str:
    """Return the `repr` of an expression in the kernel."""
    request = client.execute("", silent=True, user_expressions={"answer": expression})
    while True:
        reply = client.get_shell_msg(timeout=90)
        if reply["parent_header"].get("msg_id") == request:
            return str(reply["content"]["user_expressions"]["answer"]["data"]["text/plain"])


@pytest.mark.slow
@pytest.mark.parametrize("code", [WORKBENCH, LIVE], ids=["workbench", "live"])
def test_a_page_is_heard_after_the_subshell_of_another_message_has_ended(
    client: BlockingKernelClient, code: str
) -> None:
    """The thread of a widget sends on; a page that was loaded again opens its view."""
    client.execute_interactive(code, timeout=240)
    comm = value(client, "w.comm.comm_id").strip("'")
    comm_message(client, comm, None, kind="open", view="a", open=True)
    until(lambda: value(client, "sorted(w._views)") == "['a']")
    subshell = answer_to(client, "create_subshell_request")["subshell_id"]
    # As JupyterLab does when a page is loaded: a comm of its own is closed on a subshell, which then ends.
    message = client.session.msg("comm_close", {"comm_id": "of the page", "data": {}})
    message["header"]["subshell_id"] = subshell
    client.shell_channel.send(message)
    until(lambda: idle_after(client, message))
    for _ in range(3):  # the widget sends while that is the newest message of the kernel
        until(lambda: client.get_iopub_msg(timeout=90)["msg_type"] == "comm_msg")
    answer_to(client, "delete_subshell_request", subshell_id=subshell)
    comm_message(client, comm, None, kind="open", view="b", open=True)
    until(lambda: value(client, "sorted(w._views)") == "['a', 'b']")
