"""See `bn_inception.files`."""

from bn_inception.files import is_left_over as is_left_over
from bn_inception.files import write_bytes as write_bytes
from bn_inception.files import write_json as write_json
from bn_inception.files import write_text as write_text
