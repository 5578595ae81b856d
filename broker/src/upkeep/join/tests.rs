//! Runs joined into long objects: every byte where it belongs, whatever the lengths of parts, windows and objects.
