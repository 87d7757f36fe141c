"""What Keras lacks, or takes a detour for, on its three backends.

Internal: users import nothing from here. One module is one idea, and every
function in it says which backend it is for.
"""
