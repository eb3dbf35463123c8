from conftest_gate import gates as gates
from conftest_gate import side as side
