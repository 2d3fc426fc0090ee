from .captions import CaptionedPicture as CaptionedPicture
from .captions import WarmstartDataError as WarmstartDataError
from .captions import digest_pictures as digest_pictures
from .captions import read_captions as read_captions
from .supervised import WarmstartError as WarmstartError
from .supervised import WarmstartResult as WarmstartResult
from .supervised import train_supervised as train_supervised

__all__ = [
    "CaptionedPicture",
    "WarmstartDataError",
    "WarmstartError",
    "WarmstartResult",
    "digest_pictures",
    "read_captions",
    "train_supervised",
]
