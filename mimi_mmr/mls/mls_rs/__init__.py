"""The engine over mls-rs (AWS's RFC 9420 library in Rust), through its Python binding."""

from mimi_mmr.mls.mls_rs.client import MlsRsClient, MlsRsEngine
from mimi_mmr.mls.mls_rs.group import MlsRsGroup
from mimi_mmr.mls.mls_rs.staged import MlsRsStagedCommit

__all__ = ["MlsRsClient", "MlsRsEngine", "MlsRsGroup", "MlsRsStagedCommit"]
