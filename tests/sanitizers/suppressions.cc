// What the sanitizers are told at start-up, compiled into each program, so that one that is started
// by hand, by ctest or by pytest reports the same. Nothing is suppressed: a suppression that is
// added here comes with its reason.
extern "C" {

#ifdef EPO_THREAD_SANITIZER

const char* __tsan_default_options() { return "halt_on_error=1"; }

#else

// A vector that libtorch, gRPC or protobuf has grown was never told to the sanitizer.
const char* __asan_default_options() { return "detect_container_overflow=0"; }

const char* __ubsan_default_options() { return "print_stacktrace=1"; }

#endif
}
