"""MLS (RFC 9420) as this project uses it: public messages, the public ratchet tree, an engine for members.

Public are the names in `__all__`, here and in `mimi_mmr.mls.wire` and `mimi_mmr.mls.mls_rs`. The modules are
internal.
"""

from mimi_mmr.mls.engine import Applied, MlsClient, MlsEngine, MlsGroup, StagedCommit
from mimi_mmr.mls.ratchet.tree import RatchetTree, TreeChange

__all__ = ["Applied", "MlsClient", "MlsEngine", "MlsGroup", "RatchetTree", "StagedCommit", "TreeChange"]
