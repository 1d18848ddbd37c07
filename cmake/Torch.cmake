# Own imported LibTorch targets: find_package(Torch) fails on CMake 3.25 with C++20 and bakes foreign RUNPATHs on 4.x.
# The wheel is found beside the sources (.venv, made by deploy/setup.sh) or through -DTANDEM_TORCH_DIR=.../site-packages/torch.
set(TANDEM_TORCH_VERSION 2.11.0)
set(TANDEM_TORCH_DIR "" CACHE PATH "the folder of the installed Python package torch")
if(NOT TANDEM_TORCH_DIR)
  file(GLOB candidates ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  if(candidates)
    list(GET candidates 0 torch_dir)
  else()
    execute_process(COMMAND python3 -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
else()
  set(torch_dir ${TANDEM_TORCH_DIR})
endif()
if(NOT EXISTS "${torch_dir}/version.py")
  message(FATAL_ERROR "LibTorch ${TANDEM_TORCH_VERSION} not found. Run deploy/setup.sh, or pass -DTANDEM_TORCH_DIR, or -DTANDEM_WITH_TORCH=OFF.")
endif()
file(STRINGS ${torch_dir}/version.py torch_version REGEX "^__version__")
if(NOT torch_version MATCHES "'${TANDEM_TORCH_VERSION}")
  message(FATAL_ERROR "${torch_dir} holds ${torch_version}; Tandem is built and tested with ${TANDEM_TORCH_VERSION}.")
endif()
foreach(name torch_cpu c10)
  add_library(tandem::${name} SHARED IMPORTED)
  set_target_properties(tandem::${name} PROPERTIES IMPORTED_LOCATION ${torch_dir}/lib/lib${name}.so)
endforeach()
add_library(tandem_torch INTERFACE)
target_include_directories(tandem_torch SYSTEM INTERFACE ${torch_dir}/include ${torch_dir}/include/torch/csrc/api/include)
# at::parallel_for is a template in ATen's headers: compiled without OpenMP it silently runs on one thread. Units that
# use it are compiled with TANDEM_PARALLEL_OPTIONS and linked with torch's own libgomp, never with a second one.
set(TANDEM_PARALLEL_OPTIONS -fopenmp)
add_library(tandem::gomp SHARED IMPORTED)
set_target_properties(tandem::gomp PROPERTIES IMPORTED_LOCATION ${torch_dir}/lib/libgomp.so.1)
# LibTorch's own C++ runtime, named before the compiler's -lstdc++: a GCC that has only libstdc++.a beside it would link a
# second runtime into the program, and the two would free each other's locales at exit ("free(): invalid pointer").
execute_process(COMMAND ldd ${torch_dir}/lib/libc10.so OUTPUT_VARIABLE c10_needs ERROR_QUIET)
if(NOT c10_needs MATCHES "libstdc\\+\\+\\.so\\.6 => ([^ \n]+)")
  message(FATAL_ERROR "ldd does not say which libstdc++.so.6 ${torch_dir}/lib/libc10.so loads; install the C++ runtime.")
endif()
add_library(tandem::stdcxx SHARED IMPORTED)
set_target_properties(tandem::stdcxx PROPERTIES IMPORTED_LOCATION ${CMAKE_MATCH_1})
target_link_libraries(tandem_torch INTERFACE tandem::torch_cpu tandem::c10 tandem::gomp tandem::stdcxx)
# CMake adds torch/lib to the RPATH of what links it; the wheel's own RPATH finds libcudart and libcupti; nothing of ours calls them on a CPU machine.
target_link_options(tandem_torch INTERFACE "LINKER:--allow-shlib-undefined")
# torch_cuda is not linked: worker/model/device.cc loads it from the same folder when a job asks for a GPU. One binary
# serves both machines, no --as-needed can drop it in silence, and a rank on the CPU does not wait for a gigabyte to load.

find_package(MPI REQUIRED COMPONENTS C)
