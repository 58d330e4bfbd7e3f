# libtorch as the `torch` wheel brings it. TorchConfig.cmake insists on a CUDA toolkit, so the imported target is defined here.
#
# Looks in LibTorch_ROOT, else in the project's .venv. Defines LibTorch::LibTorch (tensors and autograd on the CPU; the CUDA libraries are
# loaded at run time, see core/model/device.cc), LibTorch_LIBRARY_DIR and LibTorch_CUDA_INCLUDE_DIR.

if(NOT LibTorch_ROOT)
  file(GLOB LibTorch_ROOT ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
endif()
find_path(LibTorch_INCLUDE_DIR ATen/ATen.h HINTS ${LibTorch_ROOT}/include NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
# What libtorch_cpu.so itself needs: libcudart.so.13 and libcupti.so.13, from wheels of their own.
file(GLOB LibTorch_CUDA_RUNTIME_DIRS ${LibTorch_ROOT}/../nvidia/*/lib)
find_path(LibTorch_CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ${LibTorch_ROOT}/../nvidia/cu13/include NO_DEFAULT_PATH)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  LibTorch
  REQUIRED_VARS LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_CUDA_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "run scripts/setup, or set LibTorch_ROOT to the torch folder of a site-packages")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  get_filename_component(LibTorch_LIBRARY_DIR ${LibTorch_CPU_LIBRARY} DIRECTORY)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  # -idirafter: the wheel carries a google/protobuf of its own, which must come after Debian's.
  target_compile_options(LibTorch::LibTorch INTERFACE
    "SHELL:-idirafter ${LibTorch_INCLUDE_DIR}"
    "SHELL:-idirafter ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include")
  target_link_libraries(LibTorch::LibTorch INTERFACE ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY})
  target_link_options(LibTorch::LibTorch INTERFACE -Wl,-rpath,${LibTorch_LIBRARY_DIR})
  foreach(dir IN LISTS LibTorch_CUDA_RUNTIME_DIRS)
    target_link_options(LibTorch::LibTorch INTERFACE -Wl,-rpath-link,${dir} -Wl,-rpath,${dir})
  endforeach()
endif()
