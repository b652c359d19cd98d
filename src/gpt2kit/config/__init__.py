"""Every knob, as frozen typed dataclasses: the field strings are the help, the docs and the editor's hints."""
