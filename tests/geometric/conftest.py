import numpy as np
import pytest

from drivers.arms import describe
from runtime.arm_model import ArmModel

HOME = np.array([0.0, -1.57, 1.57, 1.57, 0.0, 0.5])


@pytest.fixture(scope="session")
def arm() -> ArmModel:
    return describe().model()


@pytest.fixture
def home() -> np.ndarray:
    return HOME.copy()
