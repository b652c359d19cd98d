"""`from gpt2kit import simple as gpt2`: gpt-2-simple's functions, for scripts that have used it."""

from __future__ import annotations

from gpt2kit.legacy.colab import (
    copy_checkpoint_from_gdrive,
    copy_checkpoint_to_gdrive,
    copy_file_from_gdrive,
    copy_file_to_gdrive,
    get_tarfile_name,
    is_mounted,
    mount_gdrive,
)
from gpt2kit.legacy.gpt_2_simple import (
    generate,
    generate_to_file,
    get_available_gpus,
    load_gpt2,
    reset_session,
    start_tf_sess,
)
from gpt2kit.legacy.gpt_2_simple_command import cmd, cmd_finetune, cmd_generate
from gpt2kit.legacy.gpt_2_simple_files import (
    download_file_with_progress,
    download_gpt2,
    encode_csv,
    encode_dataset,
    is_gpt2_downloaded,
)
from gpt2kit.legacy.gpt_2_simple_training import finetune

__all__ = [
    "cmd",
    "cmd_finetune",
    "cmd_generate",
    "copy_checkpoint_from_gdrive",
    "copy_checkpoint_to_gdrive",
    "copy_file_from_gdrive",
    "copy_file_to_gdrive",
    "download_file_with_progress",
    "download_gpt2",
    "encode_csv",
    "encode_dataset",
    "finetune",
    "generate",
    "generate_to_file",
    "get_available_gpus",
    "get_tarfile_name",
    "is_gpt2_downloaded",
    "is_mounted",
    "load_gpt2",
    "mount_gdrive",
    "reset_session",
    "start_tf_sess",
]
