"""That scripts find what they call: the names of gpt-2-simple 0.8.1, with its parameters and defaults.

Source: the signatures in its gpt_2.py; tests/judges asks the program itself.
"""

import inspect

import pytest

from gpt2kit import simple as gpt2

SIGNATURES = """
cmd()
cmd_finetune(dataset, run_name, checkpoint_dir, model_name, model_dir, steps, restore_from, sample_every, save_every,
    print_every, optimizer, overwrite, multi_gpu)
cmd_generate(nfiles, nsamples, folder, length, temperature, batch_size, prefix, truncate, include_prefix, sample_delim,
    run_name, checkpoint_dir, top_k, top_p, multi_gpu)
copy_checkpoint_from_gdrive(run_name='run1', copy_folder=False)
copy_checkpoint_to_gdrive(run_name='run1', copy_folder=False)
copy_file_from_gdrive(file_path)
copy_file_to_gdrive(file_path)
download_file_with_progress(url_base, sub_dir, model_name, file_name)
download_gpt2(model_dir='models', model_name='124M')
encode_csv(csv_path, out_path='csv_encoded.txt', header=True, start_token='<|startoftext|>', end_token='<|endoftext|>')
encode_dataset(file_path, model_dir='models', out_path='text_encoded.npz', model_name='124M', combine=50000)
finetune(sess, dataset, steps=-1, model_name='124M', model_dir='models', combine=50000, batch_size=1,
    learning_rate=0.0001, accumulate_gradients=5, restore_from='latest', run_name='run1', checkpoint_dir='checkpoint',
    sample_every=100, sample_length=1023, sample_num=1, multi_gpu=False, save_every=1000, print_every=1,
    max_checkpoints=1, use_memory_saving_gradients=False, only_train_transformer_layers=False, optimizer='adam',
    overwrite=False, reuse=False)
generate(sess, run_name='run1', checkpoint_dir='checkpoint', model_name=None, model_dir='models', sample_dir='samples',
    return_as_list=False, truncate=None, destination_path=None, sample_delim='====================\\n', prefix=None,
    seed=None, nsamples=1, batch_size=1, length=1023, temperature=0.7, top_k=0, top_p=0.0, include_prefix=True)
generate_to_file(sess, run_name='run1', checkpoint_dir='checkpoint', model_name=None, model_dir='models',
    truncate=None, destination_path='gpt_2_gen_texts.txt', sample_delim='====================\\n', prefix=None,
    seed=None, nsamples=1, batch_size=1, length=1023, temperature=0.7, top_k=0, top_p=0.0, include_prefix=True)
get_available_gpus()
get_tarfile_name(checkpoint_folder)
is_gpt2_downloaded(model_dir='models', model_name='124M')
is_mounted()
load_gpt2(sess, checkpoint='latest', run_name='run1', checkpoint_dir='checkpoint', model_name=None,
    model_dir='models', multi_gpu=False, reuse=False)
mount_gdrive()
reset_session(sess, threads=-1, server=None)
start_tf_sess(threads=-1, server=None)
"""
EXPECTED = SIGNATURES.strip().replace("\n    ", " ").split("\n")


def name_of(line):
    return line.partition("(")[0]


@pytest.mark.parametrize("line", EXPECTED, ids=name_of)
def test_a_function_has_the_parameters_and_defaults_it_had(line):
    function = getattr(gpt2, name_of(line))
    signature = inspect.signature(function)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    bare = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    assert f"{function.__name__}{bare}" == line


def test_these_are_all_in_the_order_of_the_alphabet():
    assert gpt2.__all__ == [name_of(line) for line in EXPECTED]


@pytest.mark.parametrize("name", gpt2.__all__)
def test_each_says_what_it_does(name):
    assert getattr(gpt2, name).__doc__.strip()
