from array import array

LAYOUT: int

def send_to_all(numbers: array[int], frame: bytes, /) -> list[int]: ...
