import Foundation

/// How the commands that run a model are used; help shows them on every system.
enum ModelCommandUsage {
  static let classify = """
    mvit classify MODEL IMAGE [--top N] [--path exact|fast] [--units UNITS] [--function NAME]
        Print the likeliest classes, the values of a regression, or an embedding.
        UNITS: all, cpuAndNeuralEngine, cpuAndGPU, cpuOnly. Needs Core ML.
    """
  static let segment = """
    mvit segment MODEL IMAGE [-o FILE.ppm] [--path exact|fast] [--units UNITS] [--function NAME]
        Print how much of the picture each class covers; with -o, paint the classes.
        Needs Core ML.
    """
  static let bench = """
    mvit bench MODEL IMAGE [--runs N] [--path exact|fast] [--units UNITS] [--function NAME]
        Print the latency of the prediction alone, and of the resize before it. Needs Core ML.
    """
  static let plan = """
    mvit plan MODEL [--units UNITS] [--function NAME]
        Print the share of the work that each part of the chip is to get: Core ML's estimate.
        Needs Core ML.
    """
}

#if !canImport(CoreML)
/// A command that this system cannot carry out.
protocol CoreMLCommand: Command {}

/// Why a command does not run here, and what does.
struct NoCoreMLError: Error, LocalizedError {
  let command: String

  var errorDescription: String? {
    "\(command) runs the model with Core ML, which only Apple's systems have. Here, `mvit-coreml "
      + "predict MODEL IMAGE` answers with the portable runtime; describe, listing, preprocess and "
      + "bench-preprocess of this tool work everywhere."
  }
}

extension CoreMLCommand {
  static func run(_ words: ArraySlice<String>) async throws { throw NoCoreMLError(command: name) }
}

struct ClassifyCommand: CoreMLCommand {
  static let name = "classify"
  static let usage = ModelCommandUsage.classify
}

struct SegmentCommand: CoreMLCommand {
  static let name = "segment"
  static let usage = ModelCommandUsage.segment
}

struct BenchCommand: CoreMLCommand {
  static let name = "bench"
  static let usage = ModelCommandUsage.bench
}

struct PlanCommand: CoreMLCommand {
  static let name = "plan"
  static let usage = ModelCommandUsage.plan
}
#endif
