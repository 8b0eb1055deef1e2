__version__ = "0.1.0"

import os

# Read by torch when it is loaded: threads that wait for each other sleep, and do not keep the processor from whoever else needs it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
