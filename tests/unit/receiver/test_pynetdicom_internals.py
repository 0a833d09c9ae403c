"""What `receiver.pynetdicom_internals` relies on, held against the pynetdicom that is installed."""

from __future__ import annotations

import inspect
import operator
from copy import deepcopy
from typing import Any

import pynetdicom
import pytest
from pynetdicom import AE, _config, association, build_context, dul, fsm, transport
from pynetdicom.presentation import negotiate_as_acceptor

from receiver import pynetdicom_internals
from receiver.contexts import supported_contexts

SIGNATURES = {
    "association.Association.__init__": (association, "(self, ae, mode)"),
    "association.Association._run_reactor": (association, "(self)"),
    "association.Association._abort_blocking": (association, "(self, block)"),
    "association.Association.kill": (association, "(self)"),
    "dul.DULServiceProvider.__init__": (dul, "(self, assoc)"),
    "dul.DULServiceProvider._is_transport_event": (dul, "(self)"),
    "dul.DULServiceProvider.run_reactor": (dul, "(self)"),
    "dul.DULServiceProvider.kill_dul": (dul, "(self)"),
    "transport.AssociationSocket.__init__": (transport, "(self, assoc, client_socket, address)"),
    "transport.AssociationSocket.recv": (transport, "(self, nr_bytes)"),
    "transport.AssociationSocket.close": (transport, "(self)"),
    "transport.RequestHandler._create_association": (transport, "(self)"),
    "transport.AssociationServer.get_events": (transport, "(self)"),
    "transport.AssociationServer.get_handlers": (transport, "(self, event)"),
}
CALLERS = {
    # name: (who is relied on to use it, and how that reads in its source)
    "Association._run_reactor": (association.Association.run_reactor, "self._run_reactor()"),
    "Association._server": (association.Association.run_reactor, "self._server.shutdown_request("),
    "Association._abort_blocking": (association.Association.abort, "self._abort_blocking(block)"),
    "DULServiceProvider._is_transport_event": (
        dul.DULServiceProvider.run_reactor,
        "self._is_transport_event()",
    ),
    "DULServiceProvider.run_reactor": (
        dul.DULServiceProvider.__init__,
        "make_target(self.run_reactor)",
    ),
    "DULServiceProvider.to_user_queue": (
        association.Association.run_reactor,
        "if primitive is None:\n                self.kill()",
    ),
    "DULServiceProvider._kill_thread": (
        dul.DULServiceProvider.run_reactor,
        "if self._kill_thread:\n                break",
    ),
    "AssociationSocket.recv": (dul.DULServiceProvider._read_pdu_data, "self.socket.recv("),
    "RequestHandler._create_association": (
        transport.RequestHandler.handle,
        "self._create_association()",
    ),
    "AcceptorThread": (transport.AssociationServer, '"AcceptorThread" in tt.name'),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_name_has_the_signature_that_is_relied_on(name: str) -> None:
    module, expected = SIGNATURES[name]
    try:
        found: Any = operator.attrgetter(name.partition(".")[2])(module)
    except AttributeError:
        pytest.fail(f"pynetdicom {pynetdicom.__version__} has no {name} any more")
    parameters = f"({', '.join(inspect.signature(found).parameters)})"
    assert parameters == expected, f"pynetdicom {pynetdicom.__version__}: {name} has changed"


@pytest.mark.parametrize("name", CALLERS)
def test_a_name_is_used_as_is_relied_on(name: str) -> None:
    caller, use = CALLERS[name]
    assert callable(caller)
    changed = f"pynetdicom {pynetdicom.__version__} does not use {name} any more"
    assert use in inspect.getsource(caller), changed


def test_attributes_and_switches_are_there() -> None:
    assert callable(_config.VALIDATORS["UI"]), "_config.VALIDATORS['UI'] has changed"
    assert _config.LOG_HANDLER_LEVEL in ("none", "standard")
    made = association.Association(AE("A"), "acceptor")
    for name in ("_server", "dul", "acse_timeout", "network_timeout", "is_released", "is_aborted"):
        assert hasattr(made, name), f"Association has no {name} any more"
    assert made.dul.state_machine.current_state == "Sta1"
    assert "Sta2" in inspect.getsource(fsm.AE_5), "state Sta2 of the DUL has another name"
    assert "Sta6" in inspect.getsource(fsm.AE_7), "state Sta6 of the DUL has another name"


def test_a_negotiation_leaves_the_contexts_that_associations_share_as_they_are() -> None:
    supported = supported_contexts("refuse")
    before = deepcopy(supported)
    proposed = [build_context(str(context.abstract_syntax)) for context in supported]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1

    results, _ = negotiate_as_acceptor(proposed, supported, None)

    assert any(context.result == 0x00 for context in results)
    assert supported == before
    assert [vars(context) for context in supported] == [vars(context) for context in before]


def test_the_provider_that_is_put_in_place_gets_the_timeouts() -> None:
    ae = AE("A")
    ae.acse_timeout, ae.network_timeout = 3, 4

    made = pynetdicom_internals.StreamingAssociation(ae, lambda _: pytest.fail("not established"))

    assert isinstance(made.dul, pynetdicom_internals.NegotiatingDul)
    assert made.dul.artim_timer.timeout == 3
    assert made.dul._idle_timer.timeout == 4
