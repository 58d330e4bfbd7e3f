"""Dream neurons of a language model that an epo-server keeps resident.

    import epo_client as epo

    client = epo.Client("127.0.0.1:50051")
    run = client.dream(epo.neuron(8, 1), iterations=300)
    for step in run:
        pass
    run.plot_frontier()
"""

from epo_client.aio import AsyncClient, AsyncRun
from epo_client.attribution import Attribution, Substitute, TokenAttribution
from epo_client.client import Client
from epo_client.connection import Tls
from epo_client.errors import (
    AccessError,
    EpoError,
    InvalidArgumentError,
    JobFailedError,
    LimitError,
    LoadError,
    NoStepsError,
    NotFoundError,
    StateError,
    UnavailableError,
    Violation,
)
from epo_client.history import History, ParetoFrontier, build_pareto_frontier
from epo_client.objective import Objective, combine, neuron, objective
from epo_client.results import Results, load
from epo_client.run import Run
from epo_client.steps import ScoredPrompt, Slot, Step

__all__ = [
    "AccessError",
    "AsyncClient",
    "AsyncRun",
    "Attribution",
    "Client",
    "EpoError",
    "History",
    "InvalidArgumentError",
    "JobFailedError",
    "LimitError",
    "LoadError",
    "NoStepsError",
    "NotFoundError",
    "Objective",
    "ParetoFrontier",
    "Results",
    "Run",
    "ScoredPrompt",
    "Slot",
    "StateError",
    "Step",
    "Substitute",
    "Tls",
    "TokenAttribution",
    "UnavailableError",
    "Violation",
    "build_pareto_frontier",
    "combine",
    "load",
    "neuron",
    "objective",
]
