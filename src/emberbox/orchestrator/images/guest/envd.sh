#!/.emberbox/bin/busybox sh
# Starts envd in its own interpreter, through its own loader: the root image may have another
# libc or none. -I and -S keep the environment, the user's site and the root image's packages out.
exec /.emberbox/lib/ld.so --library-path /.emberbox/lib --argv0 /.emberbox/python/bin/python3 \
    /.emberbox/python/bin/python3 -I -S -B -X utf8 /.emberbox/bin/envd.py "$@"
