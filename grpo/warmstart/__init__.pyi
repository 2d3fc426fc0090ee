from .captions import CaptionedPicture as CaptionedPicture
from .captions import WarmstartDataError as WarmstartDataError
from .captions import digest_pictures as digest_pictures
from .captions import read_captions as read_captions
from .supervised import train_supervised as train_supervised
from .types import WarmstartError as WarmstartError
from .types import WarmstartResult as WarmstartResult

__all__ = [
    "CaptionedPicture",
    "WarmstartDataError",
    "WarmstartError",
    "WarmstartResult",
    "digest_pictures",
    "read_captions",
    "train_supervised",
]
