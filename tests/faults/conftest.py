"""What the tests of faults share: small jobs of phi-tiny, and what is read of them."""

import contextlib
import os
import pathlib
import re
import urllib.request

import grpc
import pytest


class Jobs:
    """Jobs of a test; `running` is always the server to ask."""

    def __init__(self, stubs):
        self._stubs = stubs
        self.states = stubs.job.Job

    def request(self, request_id="", **fields):
        objective = self._stubs.objective.Objective(neuron=self._stubs.objective.NeuronObjective(layer=2, neuron=5))
        fields = {"population": 4, "children_per_parent": 8, "top_k": 16, "tokens": 6, "iterations": 20, **fields}
        return self._stubs.service.CreateJobRequest(spec=self._stubs.job.JobSpec(objective=objective, **fields), request_id=request_id)

    def create(self, running, **fields):
        return running.stub.CreateJob(self.request(**fields), timeout=30).id

    def get(self, running, job_id):
        return running.stub.GetJob(self._stubs.service.GetJobRequest(id=job_id), timeout=30)

    def list(self, running):
        return running.stub.ListJobs(self._stubs.service.ListJobsRequest(), timeout=30).jobs

    def cancel(self, running, job_id):
        return running.stub.CancelJob(self._stubs.service.CancelJobRequest(id=job_id), timeout=60)

    def watch(self, stub, job_id, after=0, timeout=120):
        return stub.WatchJob(self._stubs.service.WatchJobRequest(id=job_id, after_sequence=after), timeout=timeout)

    def end(self, running, job_id):
        """The job once it has ended."""
        return list(self.watch(running.stub, job_id))[-1].ended

    def wait_for_step(self, running, job_id, sequence):
        stream = self.watch(running.stub, job_id)
        next(update for update in stream if update.sequence >= sequence)
        stream.cancel()

    def history(self, running, job_id):
        """Each iteration's bytes."""
        request = self._stubs.service.GetHistoryRequest(id=job_id)
        return [i.SerializeToString(deterministic=True) for i in running.stub.GetHistory(request, timeout=120)]


@pytest.fixture(scope="session")
def jobs(stubs):
    return Jobs(stubs)


@pytest.fixture(scope="session")
def tiny(root):
    return root / "tests/parity/phi-tiny"


@pytest.fixture
def metric():
    """metric(running, 'name{label="value"}') -> what /metrics says."""

    def read(running, name):
        (address,) = re.findall(r"metrics on (http://\S+)", running.log())
        with urllib.request.urlopen(address, timeout=30) as reply:
            lines = reply.read().decode().splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.rsplit(" ", 1)[0] == name)

    return read


@pytest.fixture
def descriptors():
    """descriptors(running) -> how many sockets the server has open.

    What it opens of its store is not a client's: connections that read are made as they are needed, and kept.
    """

    def count(running):
        links = []
        for descriptor in pathlib.Path(f"/proc/{running.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # Closed meanwhile.
                links.append(os.readlink(descriptor))
        return sum(link.startswith("socket:") for link in links)

    return count


@pytest.fixture
def store_serving():
    """store_serving(running) -> whether health says that the store takes writes."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    def check(running):
        with grpc.insecure_channel(running.address) as channel:
            request = health_pb2.HealthCheckRequest(service="epo.v1.EpoService/store")
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=30)
        return reply.status == health_pb2.HealthCheckResponse.SERVING

    return check
