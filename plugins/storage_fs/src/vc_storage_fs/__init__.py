"""The store on a filesystem."""

from vc_storage_fs.options import FsOptions
from vc_storage_fs.plugin import FsStorage

__all__ = ["FsOptions", "FsStorage"]
