.PHONY: native
native:
	internal/native/native.sh
