"Two small sets of images, for the tests of the reader study."
import pytest
from reader_study_cases import image_set

@pytest.fixture(scope="module")
def real(): return image_set("real")

@pytest.fixture(scope="module")
def generated(): return image_set("generated", seed=1)
