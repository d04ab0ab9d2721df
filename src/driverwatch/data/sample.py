"""x"""
from dataclasses import dataclass
@dataclass
class SampleOptions:
    drivers: int = 1
