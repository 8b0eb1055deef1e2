"Runs in processes of their own, for the tests of this folder."
import multiprocessing

import pytest
from small_runs import child

@pytest.fixture(scope="session")
def run():
    "run(out_dir, resume, moment, n) -> exit code of a process that trains."
    if "forkserver" not in multiprocessing.get_all_start_methods(): pytest.skip("needs forkserver")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medgan.cdcgan", "medgan.data.images", "pytest", "torch._dynamo"]) # the last: optimisers load it late
    def run(out_dir, resume=False, moment="", n=None):
        process = context.Process(target=child, args=(str(out_dir), resume, moment, n))
        process.start()
        process.join(120)
        return process.exitcode
    return run

@pytest.fixture(scope="session")
def undisturbed(run, tmp_path_factory):
    "The folder of a run that nobody killed, and how many moments at its files it has."
    out_dir = tmp_path_factory.mktemp("undisturbed")/"run"
    assert run(out_dir, moment="file") == 0
    return out_dir, int((out_dir.parent/"moments").read_text())
