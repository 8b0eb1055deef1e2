"For the tests of this folder."
import pytest

@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread): "All tests here are small."
