"""Competing methods of the benchmarks that the package does not ship."""

from benchmarks.methods.emp import EMP
from benchmarks.methods.igos import IGOS
from benchmarks.methods.legrad import LeGrad
from benchmarks.methods.msg_cam import MSGCAM
from benchmarks.methods.normgrad import NormGrad
from benchmarks.methods.rise import RISE

__all__ = ["EMP", "IGOS", "MSGCAM", "RISE", "LeGrad", "NormGrad"]
