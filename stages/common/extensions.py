"""Extensions of audio files."""

# What libsndfile decodes. It recognises a format by its first bytes, so that these only select the files to open.
EXTENSIONS = {
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".amb", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mpga"),
    *(".au", ".snd", ".aif", ".aiff", ".aifc", ".caf", ".sph", ".nist", ".sf", ".ircam"),
}
# Audio, and video with audio, that needs another program, and formats of which libsndfile does not notice a cut.
UNDECODABLE = {
    *(".m4a", ".m4b", ".m4p", ".m4r", ".aac", ".adts", ".mp4", ".alac", ".wma", ".asf", ".amr", ".awb", ".3gp"),
    *(".3g2", ".3ga", ".weba", ".webm", ".mka", ".mkv", ".mov", ".qt", ".avi", ".flv", ".f4a", ".ogv", ".mpg"),
    *(".mpeg", ".m4v", ".wmv", ".ac3", ".ec3", ".eac3", ".dts", ".dtshd", ".mlp", ".thd", ".ape", ".wv", ".tta"),
    *(".tak", ".ofr", ".mpc", ".mpp", ".ra", ".ram", ".rm", ".spx", ".dsf", ".dff", ".aax", ".aa", ".qcp"),
    *(".shn", ".la", ".gsm", ".vox", ".dss", ".raw", ".pcm", ".sln", ".ulaw", ".alaw", ".sd2", ".mogg", ".mp1"),
    *(".oma", ".voc", ".htk", ".avr", ".paf", ".pvf", ".sds", ".svx", ".8svx", ".16sv", ".iff", ".wve", ".xi"),
}
