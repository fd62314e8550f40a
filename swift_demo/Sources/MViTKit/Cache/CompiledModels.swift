import Foundation

/// The compiled forms of packages: each made once, found again, and made anew when it is broken.
///
/// What compiles is handed in, so that the rules are tested without Core ML.
public actor CompiledModels {
  /// Compiles a package and returns where the result lies for now.
  public typealias Compile = @Sendable (URL) async throws -> URL

  private let cache: CompiledModelCache
  private let capacity: Int
  private let compile: Compile
  private var running: [URL: Task<Void, any Error>] = [:]
  private var used: Set<URL> = []

  /// Keeps compiled models in a cache.
  ///
  /// - Parameters:
  ///   - cache: where.
  ///   - capacity: how many, at least those of this process; others go, the longest unused first.
  ///   - compile: what compiles a package.
  public init(cache: CompiledModelCache, capacity: Int = 8, compile: @escaping Compile) {
    self.cache = cache
    self.capacity = capacity
    self.compile = compile
  }

  /// Whether a model has to be compiled before it can be loaded.
  public nonisolated func needsCompiling(_ model: URL) throws -> Bool {
    try !Self.isCompiled(model) && !cache.holdsModel(at: cache.location(for: model))
  }

  /// The compiled form of a model, made if there is none yet; asked for twice at once, made once.
  ///
  /// - Parameter model: an `.mlpackage`, or an `.mlmodelc`, which is returned as it is.
  public func compiled(_ model: URL) async throws -> URL {
    guard !Self.isCompiled(model) else { return model }
    return try await compiled(model, at: cache.location(for: model))
  }

  /// Loads a model; where its compiled form turns out to be broken, compiles it anew and tries again.
  ///
  /// A compiled model may have been damaged, or made by another version of the system. One that was
  /// made just now is not tried twice.
  ///
  /// - Parameters:
  ///   - model: an `.mlpackage` or `.mlmodelc`.
  ///   - isBroken: whether an error means that the compiled form is of no use.
  ///   - load: loads what lies at a place.
  public func load<Loaded: Sendable>(
    _ model: URL, isBroken: @Sendable (any Error) -> Bool = { _ in true },
    _ load: @Sendable (URL) async throws -> Loaded
  ) async throws -> Loaded {
    guard !Self.isCompiled(model) else { return try await load(model) }
    let location = try cache.location(for: model)
    let isOld = cache.holdsModel(at: location)
    do {
      return try await load(compiled(model, at: location))
    } catch {
      guard isOld, isBroken(error), !Task.isCancelled else { throw error }
      try cache.remove(location)
      return try await load(compiled(model, at: location))
    }
  }

  private func compiled(_ model: URL, at location: URL) async throws -> URL {
    if let task = running[location] {
      try await task.value
    } else if !cache.holdsModel(at: location) {
      let (cache, compile) = (cache, compile)
      let task = Task { try cache.store(await compile(model), at: location) }
      running[location] = task
      defer { running[location] = nil }
      try await task.value
    }
    used.insert(location)
    // Only the order of eviction hangs on it: a full disk keeps no model from answering.
    try? cache.use(location, keeping: capacity, inUse: Array(used))
    return location
  }

  private static func isCompiled(_ model: URL) -> Bool {
    model.pathExtension.lowercased() == "mlmodelc"
  }
}
