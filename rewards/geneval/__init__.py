"""GenEval: does the image hold the objects, counts, colours and positions its prompt asks for?"""

from blip3o_grpo.rewards.geneval.records import TAGS, is_record, parse_record
from blip3o_grpo.rewards.geneval.scoring import dense, keep_objects, relations, strict
from blip3o_grpo.rewards.geneval.types import Clause, Record

__all__ = ["TAGS", "Clause", "Record", "dense", "is_record", "keep_objects", "parse_record", "relations", "strict"]
