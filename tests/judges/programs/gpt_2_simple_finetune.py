"""gpt-2-simple's finetune, in the working directory: the parameters as a JSON object, the session left out."""

import json
import sys

import gpt_2_simple

gpt_2_simple.finetune(gpt_2_simple.start_tf_sess(), **json.loads(sys.argv[1]))
