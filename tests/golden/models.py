"""The models whose programs are kept, and what they are made with."""

from tests.golden import layers as layers
from tests.golden import recurrent as recurrent
from tests.golden import training as training
from tests.golden.cases import CASES as CASES
from tests.golden.cases import LIMITS as LIMITS
from tests.golden.cases import Calls as Calls
from tests.golden.cases import compiled as compiled
from tests.golden.cases import fit as fit
from tests.golden.cases import ids as ids
from tests.golden.cases import numbers as numbers
from tests.golden.recurrent import elman as elman
